"""The paper in twenty lines, on the bundled chat model. Run it with `python examples/quickstart.py`."""

import refusal

model = refusal.load_model()  # the bundled chat model; or any Hugging Face id or folder
harmful, harmless = refusal.load_prompts("harmful"), refusal.load_prompts("harmless")

candidates = refusal.mean_difference(model, harmful.train, harmless.train)
selection = refusal.select_direction(model, candidates, harmful.val, harmless.val)
direction = selection.best
direction.save("direction.safetensors")

with refusal.ablate(model, direction):
    bypassed = refusal.generate(model, harmful.test)
with refusal.add(model, direction):
    induced = refusal.generate(model, harmless.test)
edited = refusal.orthogonalize(model, direction)

print(refusal.judge(bypassed))
print(refusal.judge(induced))
print(refusal.judge(refusal.generate(edited, harmful.test)))
