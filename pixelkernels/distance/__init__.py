"""Clicks and the distances to them."""

from .api import (
    ClickMaps,
    NextClick,
    click_maps,
    distance_transform,
    next_click,
    simulate_clicks,
)

__all__ = [
    "ClickMaps",
    "NextClick",
    "click_maps",
    "distance_transform",
    "next_click",
    "simulate_clicks",
]
