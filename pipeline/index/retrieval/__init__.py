"""An open index: searched with vectors or raw ids, filtered, without what was seen."""
