"""Every parser of bytes from elsewhere, fed with damaged inputs.

`targets` has a function per parser, which lets only the documented outcomes pass;
`corpus` holds valid inputs, which `mutation` damages.

    python -m tests.fuzz --seconds 600
"""
