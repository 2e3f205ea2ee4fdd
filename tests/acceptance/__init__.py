"""Long proofs, a command each; `make test` holds a short form of every one."""
