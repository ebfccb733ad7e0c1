"""What users feel of a session store: ours and others, measured by one program.

`python -m tests.comparison` prints the README's table.
"""
