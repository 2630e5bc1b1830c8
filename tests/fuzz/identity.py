"""Who the processes of the inputs are."""

CLIENT = b"c" * 16
SERVER = b"s" * 16
NAMESPACE = "fuzz"
SECRET = b"a secret of some length"
