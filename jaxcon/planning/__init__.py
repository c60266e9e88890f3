"""What a program needs and what a machine offers, known before running anything.

| file | what |
|---|---|
| `memory` | bytes of a compiled program: arguments, results, temporaries |
| `traffic` | what a compiled program sends between devices |
| `machines` | matrix rates and link speeds that vendors publish |
"""
