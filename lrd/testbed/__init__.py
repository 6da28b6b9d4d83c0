"""A small world that behaves like the large one: student, teacher and PRM trained from scratch (`lrd testbed NAME`).

What it leaves are ordinary Hugging Face checkpoints under `models/<name>/`; everything downstream loads them as it
loads any model of the Hub. A recipe with `trainings` makes one such world a seed, under `models/<name>/<seed>/`. On
one kind of processor the same recipe gives the same weights, bit for bit. On a graphics card it need not: two trainings
side by side, on two cards of one kind, gave different weights. Each model's fingerprint is on its card.
"""
