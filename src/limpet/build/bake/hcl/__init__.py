"""HCL 2, as far as Bake files use it (hashicorp/hcl hclsyntax/spec.md, json/spec.md, spec.md): text to values.

    syntax       what text is made of: bodies, blocks, expressions, as data
    scanner      characters, blanks, comments, numbers, names
    templates    quoted and here-document templates: interpolation, `%{ if }`, `%{ for }`
    parser       expressions and bodies
    jsonbody     the JSON form of a body
    values       the kinds of values and their conversions
    types        type constraints: `list(string)`, `object({…})`
    evaluate     an expression to a value
    functions    the standard library, with `formats` and `texts`

Nothing here knows what a target is. Nothing does I/O. Values are str, bool, int or Decimal, None, list, dict.
"""
