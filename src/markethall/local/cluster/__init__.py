"""Local cluster: every context as a process of its own, behind one reverse proxy on one port.

For development only. In production an Ingress routes, and Kubernetes starts and restarts.
"""
