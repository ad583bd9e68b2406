"""Caption text without models: the text views of a clip, the LLM prompt, the guard and the rule-based merge."""
