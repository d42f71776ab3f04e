"""The controllers that a cluster with DRA needs, each a module with one reconcile function."""

from nvdra_sim.cluster.controllers.controller_manager import ControllerManager

__all__ = ["ControllerManager"]
