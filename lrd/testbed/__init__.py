"""A small world that behaves like the large one: student, teacher and PRM trained here (`lrd testbed NAME`).

What it leaves are ordinary Hugging Face checkpoints under `models/<name>/`; everything downstream loads them as it
loads any model of the Hub. A recipe trains them from scratch, or from a pretrained model that it names as `start`. One
with `trainings` makes such a world for each seed, under `models/<name>/<seed>/`. On one kind of processor the same
recipe gives the same weights, bit for bit. On a graphics card it need not: two trainings side by side, on two cards of
one kind, gave different weights. Each model's fingerprint is on its card.
"""
