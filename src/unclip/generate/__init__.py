"""What a user asks for: pictures from text, and what else a system of CLIP, prior, decoder and upsamplers can do."""
