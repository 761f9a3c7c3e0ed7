"""What people decided, from any tool's file, into the evidence of a table.

`registry` lists the forms, one module each in `readers/`; `base` holds the records; `take_in` matches them with a table
and records them.
"""
