"""The image API that DALL·E 2 had, over this server's models: bodies, answers, streams and files in OpenAI's shapes."""
