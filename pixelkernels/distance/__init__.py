"""Clicks and the distances to them."""

from .api import NextClick, click_maps, distance_transform, next_click, simulate_clicks
from .modules import ClickMaps

__all__ = [
    "ClickMaps",
    "NextClick",
    "click_maps",
    "distance_transform",
    "next_click",
    "simulate_clicks",
]
