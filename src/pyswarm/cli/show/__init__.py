"""Messages to text: one module per command family, pure functions, no fetching (spec/cli-and-executor, sections 5 to 12).

IDs become names through a function that is passed in, ages are taken against a moment that is passed in. Maps print sorted by key.
"""
