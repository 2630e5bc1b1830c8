"""Federated learning on handwritten digits, with an accident in the middle.

Each site is an agent in a process of its own. It keeps its share of the images and
sends model weights only; a coordinator agent averages them, round after round
(FedAvg). One site cannot be reached directly, so its messages go through the server.
Half way, the process of another one is killed. Read the modules in this order:
`data`, `model`, `agents`, `run`.
"""
