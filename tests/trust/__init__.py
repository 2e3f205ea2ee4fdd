"""What the guide promises in `trust`: no code from files, no script on pages, no secret in files, servers for this machine."""
