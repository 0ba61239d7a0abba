"""`kubectl tuinly`: what people ask of their Tuinly credentials, with their own rights."""

VERSION = "0.1.0"
