"""Derivatives: `grad`, `jvp`, `vjp`, `linearize`, Jacobians, `remat`, and rules of the user's own.

`selection.py` chooses the dynamic leaves that are differentiated: `argnums`, `wrt`, dtype. `diff_leaves.py` gives JAX
a flat list of them, and the user trees with a State in place of each module, so that a gradient has the attribute
paths of its Variables. The output of a call is described as the arguments of another one (`outputs.py`), and chosen
from in the same way. `tangents.py` reads the tangents and cotangents that the user gives.

- `grad.py`, `jvp.py`, `vjp.py`, `fwd_and_bwd.py`, `jacobian.py`, `remat.py`: the transforms; `gradient_types.py`:
  their types.
- `custom_jvp.py`, `custom_vjp.py`: JAX's rules around the pure function; `custom_rule.py`: what they share;
  `rule_signature.py`: what function and rule must both do;
  `residuals.py`: what the forward pass keeps for the backward pass.
"""
