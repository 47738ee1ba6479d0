"""The implementation of liftnn. Nothing here is public; `liftnn` imports what is.

From the bottom up, each folder imports only from those before it:

    lazy, trees, tracebacks, printing, annotations  lazy imports, attribute paths, tracebacks, reprs, annotations
    filters, static_values                          which Variables; what is part of the cache key
    variables                                       Variable, State, metadata, frames
    graph                                           flatten, unflatten and update object graphs
    modules                                         Module, and functions on modules
    captures                                        find and guard captured modules
    lifting                                         the engine: pure functions, plans, results
    prefixes                                        axes and shardings of each leaf
    compilation, autodiff                           jit and its kin; grad and its kin
    mapping                                         vmap, pmap, shard_map
    control_flow                                    scan, while_loop, cond
    rngs, optim, metrics, multi_metric, sharding, nn  what models are made of
    intermediates                                   values that a model records
    compat                                          the conventions of Flax NNX
"""
