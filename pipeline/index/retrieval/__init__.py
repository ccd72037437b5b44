"""An open index: searched with vectors or raw ids, filtered, without what users have seen."""
