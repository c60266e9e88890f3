"""What a program needs and what a machine offers, known before running anything.

| file | what |
|---|---|
| `memory` | bytes of a compiled program: arguments, results, temporaries |
| `traffic` | what a compiled program sends between devices |
| `topologies` | devices to compile for where there are none |
| `programs` | the text of a compiled program, taken apart |
| `estimates` | the time of a compiled program, estimated |
| `machines` | matrix rates and link speeds that vendors publish |
"""
