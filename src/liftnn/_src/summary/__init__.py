"""Look inside modules: as text, as a table, in notebooks, as a picture. Loaded at first use.

Nothing here computes, transfers an array, or fails for what a module may hold: an object that cannot be read is shown
as its class.

- `public.py`: the public functions, which load the rest.
- `outline.py`: the tree of what a module holds, each object once; all forms but the tables start from it.
- `value_text.py`: arrays, static values and metadata on one line; `settings.py`: the static attributes worth showing.
- `module_text.py`: the repr of a module.
- `calls.py`: the calls of a model's modules, recorded in an abstract trace; `flops.py`: their operations;
  `liveness.py`: the equations of a program that its outputs need.
- `tabulate.py`: the rows of a table; `table.py`: the table; `columns.py`: its columns as texts;
  `table_text.py`: these as plain text, by rich, and as HTML.
- `treescope_parts.py`: forms for treescope; `notebook.py`: HTML for notebooks, and `display`.
- `drawing.py`: the object graph as boxes and arrows; `boxes.py`: these; `mermaid.py` and `dot.py`: their text.
- `sizes.py`: elements and bytes by type of Variable.
"""
