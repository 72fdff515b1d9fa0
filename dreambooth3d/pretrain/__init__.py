"""Stage 1: pretrain the multi-view reference adapter (3Dapter) on pairs."""
