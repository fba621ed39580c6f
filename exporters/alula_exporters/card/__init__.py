"""The model card of an encoder file: Markdown from templates, and plots."""

from alula_exporters.card.card import card_text, check_card_paths, write_card

__all__ = ["card_text", "check_card_paths", "write_card"]
