"""The programs that measure: time, memory, accuracy of parts and of the whole. They come with the source checkout.

``marc bench`` compares stock transformers with this project from a file to the last token; the others are run as
``python -m benchmarks.NAME`` (``--help`` lists the options):

* the model: `flops`, `merge_cost`, `rival_cost`, `rival_latency`, `tower_chunks`, `still_clips`, `decode_speed`,
  `bare_answers`, `early_merging`;
* training: `training_step` and `teacher_speed`, against another checkout; `training_memory` and `step_estimate`,
  counted;
* decoding: `decoders`;
* the start: `startup_benchmark`, against another checkout;
* the server: `serving_benchmark`;
* nothing, but makes what the documentation shows: `pictures`, `notebook`, `licences`;
* the memory: `first_answer` (against another checkout, too), `skimming_speed` (likewise), `boundary_benchmark`,
  `skimming_boundaries`, `segmentation_speed`, `long_video`, `question_speed`, `search_benchmark`, `library_benchmark`;
* clips for it: `fetch_footage`;
* sources that do not end: `watch_benchmark`, `watch_world`.

A module imports this package's parts and marc; nothing in marc imports it but the door of ``marc bench``.
"""
