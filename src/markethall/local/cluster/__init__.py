"""Local cluster: one process per context, behind a reverse proxy on one port.

It is only for development. In production an Ingress routes requests, and Kubernetes starts and
restarts the processes.
"""
