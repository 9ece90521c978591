"""How the language model that is bundled with textgym was made."""
