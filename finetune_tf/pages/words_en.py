"""The English words of a page; see `words`."""

ENGLISH = {
    "title": "Report on {name}",
    "lead": "{n} {unit}.",
    "written": "Written on {when}.",
    "contents": "Contents",
    "footer": "Written by finetune_tf {version}.",
    "cut": "Long texts are cut; […+n] is the number of characters that are left out.",
    "comma": ", ",
    "colon": ": ",
    "yes": "yes",
    "no": "no",
    "interval": "95% interval {low} to {high}",
    "rows.more": "{n} more rows are left out.",
    # Sections
    "title.summary": "Summary",
    "title.curves": "Learning curves",
    "title.confusion": "Confusions",
    "title.classes": "Classes",
    "title.predictions": "Predictions",
    "title.calibration": "Calibration",
    "title.slices": "Parts of the test set",
    "title.worst": "Highest losses",
    "title.pictures": "Wrong predictions of pictures",
    "title.side_by_side": "Examples",
    "title.label_errors": "Likely label errors in the test set",
    "title.near_duplicates": "Near duplicates",
    "title.drift": "Drift between training and test",
    "title.settings": "Settings and versions",
    "title.reproduce": "How to repeat this",
    "title.left_out": "Not on this page",
    "result_on": "This is a result on {data}.",
    "left_out.needs": "give {names} to `save_html`.",
    "left_out.no_test": "the report does not have its test examples; make it with `evaluate`.",
    "left_out.failed": "{why}",
    # Verdicts
    "verdict.alone": "{metric} is {value} (95% interval {low} to {high}). Nothing was compared: "
    'without a baseline, such as `evaluate(…, baseline="auto", train=train)`, nobody can tell '
    "whether this is good.",
    "verdict.better": "The model is better than the baseline {baseline}: {metric} {value} against "
    "{other}, a difference of {difference} (95% interval {low} to {high}).",
    "verdict.worse": "The model is worse than the baseline {baseline}: {metric} {value} against "
    "{other}, a difference of {difference} (95% interval {low} to {high}).",
    "verdict.unclear": "The test set does not show that the model differs from the baseline "
    "{baseline}: {metric} {value} against {other}, a difference of {difference}, whose 95% "
    "interval of {low} to {high} includes 0.",
    "verdict.lower": "Lower is better.",
    # Summary
    "summary.metric": "metric",
    "summary.model": "model",
    "summary.baseline": "baseline",
    "summary.baseline_named": "baseline {name}",
    "summary.difference": "difference",
    "summary.interval": "Intervals of 95% come from a bootstrap over the test set (2,000 "
    "resamples). They say how much a result would change with other test examples of the same "
    "kind, not with another training run.",
    "summary.no_duplicates": "No test example occurs in the training examples.",
    "summary.duplicates": "{n} of {total} test {unit} also occur in the training examples: results "
    "on new data may be worse than these.",
    "summary.contradictions": "{n} of {total} test {unit} also occur with another label in the "
    "test set or the training examples: a model can predict these correctly only by chance.",
    "summary.missed": "Never predicted correctly: {names}. If a class is rare in the training "
    "data, collect more examples of it, or increase its weight with `class_weight=`.",
    "summary.missed_more": "Never predicted correctly: {names} and {n} more. If a class is rare in "
    "the training data, collect more examples of it, or increase its weight with `class_weight=`.",
    "summary.note": "Computed with: {note}",
    # Learning curves
    "curves.training": "training",
    "curves.validation": "validation",
    "curves.epoch": "epoch",
    "curves.rises": "The validation loss was lowest after epoch {epoch} of {epochs} ({loss}) and "
    "rose afterwards.",
    "curves.falls": "The validation loss was lowest after the last of {epochs} epochs ({loss}): "
    "longer training may help.",
    # Confusions
    "confusion.errors": "{n} of {total} predictions are wrong.",
    "confusion.chart": "True classes in rows, predicted classes in columns; the darker, the larger "
    "the share of the true class",
    "confusion.true": "true class",
    "confusion.predicted": "predicted class",
    "confusion.n": "times",
    "confusion.share": "share of the true class",
    "confusion.reverse": "the other way round",
    "confusion.pairs": "The {n} most frequent confusions, which are {covered} of all errors.",
    "confusion.too_large": "The matrix has too many cells with entries for a picture.",
    # Classes
    "classes.class": "class",
    "classes.support": "in the test set",
    "classes.order": "The classes with the lowest F1 come first.",
    "classes.not_shown": "{n} classes with a higher F1 are left out.",
    "classes.absent": "{n} classes do not occur in the test set and are left out.",
    # Predicted numbers
    "predictions.chart": "Predicted numbers against the true ones",
    "predictions.chart_line": "Predicted numbers against the true ones; correct predictions lie on "
    "the line",
    "predictions.true": "truth",
    "predictions.predicted": "predicted",
    "predictions.sample": "The picture shows {n} of {total} predictions, drawn at random.",
    # Calibration
    "calibration.ece": "expected calibration error",
    "calibration.nll": "negative log-likelihood",
    "calibration.decisions": "decisions",
    "calibration.trusted": "The calibration error is not larger than chance explains.",
    "calibration.over": "The model is too certain: on average its confidence exceeds the share of "
    "correct predictions by {gap}. `ft.calibrate(model, validation)` may correct this.",
    "calibration.under": "The model is not certain enough: on average its confidence is {gap} "
    "below the share of correct predictions. `ft.calibrate(model, validation)` may correct this.",
    "calibration.chart": "How often predictions of each confidence are right; on the dashed line "
    "confidence and frequency agree, and the size of a dot is the number of predictions",
    "calibration.confidence": "confidence",
    "calibration.frequency": "share of correct predictions",
    "calibration.caption": "The bins of the picture",
    "calibration.bin": "confidence",
    "calibration.size": "predictions",
    "calibration.mean": "mean confidence",
    "calibration.right": "correct",
    # Slices
    "slices.by": "by",
    "slices.value": "part",
    "slices.size": "examples",
    "slices.difference": "to the rest",
    "slices.p": "p",
    "slices.clear": "clear",
    "slices.overall": "On all examples, the {metric} is {value} (95% interval {low} to {high}), "
    "which is the dashed line in the table.",
    "slices.other_model": "The model that was given predicts otherwise than the one of this "
    "report, whose {metric} is {reported}. This section, the calibration and the highest losses "
    "are about the model that was given: evaluate it again for a report that fits.",
    "slices.clear_count": "{n} of {total} parts differ from the rest by more than chance explains "
    "(p below 0.05, corrected for the number of parts).",
    "slices.too_small": "{n} parts have too few examples and are left out.",
    "slices.without_metric": "{n} parts are left out because the {metric} says nothing there: it "
    "is 0 whatever is predicted.",
    "slices.caption": "Parts of the test set, worst first",
    "by.length": "length (tokens)",
    "by.label": "label",
    "range": "{low} to {high}",
    # Highest losses
    "worst.lead": "The {n} of {total} examples with the highest losses have {share} of the total "
    "loss; the mean loss is {mean}. Read them first: some are mistakes of the labels, and others "
    "show what the training data lack.",
    "worst.facts": "{place}: label {label}, predicted {predicted}; the label has a probability of "
    "{probability}, a loss of {loss}.",
    "worst.place": "row",
    "worst.text": "text",
    "worst.label": "label",
    "worst.predicted": "predicted",
    "worst.probability": "probability of the label",
    "worst.loss": "loss",
    "worst.needs_model": "Explanations need the model: give `model=` to `save_html`.",
    "worst.other_data": "These examples are not those of the report, so they are not explained.",
    "worst.not_explained": "These predictions cannot be explained: {message}",
    "explained.target": "What speaks for or against {target} (integrated gradients)",
    "explained.for": "speaks for it",
    "explained.against": "speaks against it",
    "explained.complete": "score {score}, completeness error {error}",
    "explained.picture": "the picture",
    "explained.scores": "what the prediction depends on",
    # Pictures
    "pictures.lead": "The {n} wrong predictions with the highest probabilities.",
    "pictures.facts": "label {label}, predicted {predicted} ({score})",
    "pictures.unreadable": "{file} cannot be read.",
    "side_by_side.caption": "The first {n} examples of the test set",
    "column.source": "source",
    "column.reference": "reference",
    "column.prediction": "prediction",
    # Label errors
    "label_errors.estimated": "About {n} of the {total} labels of {data} are estimated to be wrong "
    "(95% interval {low} to {high}).",
    "label_errors.probes": "The estimate is that of probes, which predict {value} of the labels "
    "of rows that they were not trained on (95% interval {low} to {high}). The lower this is, the "
    "less the list says.",
    "label_errors.left_out": "{n} rows of rare classes are not ranked.",
    "label_errors.place": "row",
    "label_errors.text": "text",
    "label_errors.label": "label",
    "label_errors.suggested": "suggested",
    "label_errors.own": "probability of the label",
    "label_errors.other": "probability of the suggestion",
    # Near duplicates
    "near_duplicates.between": "{n} of the {total} rows of {data} have a near duplicate in {other} "
    "(cosine similarity of the features of at least {similarity}); {differ} of these pairs have "
    "different labels.",
    "near_duplicates.within": "{n} of the {total} rows of {data} have a near duplicate in the same "
    "data (cosine similarity of the features of at least {similarity}); {differ} of these pairs "
    "have different labels.",
    "near_duplicates.row": "row",
    "near_duplicates.text": "text",
    "near_duplicates.other_row": "other row",
    "near_duplicates.other_text": "other text",
    "near_duplicates.similarity": "similarity",
    "near_duplicates.labels": "labels",
    # Drift
    "drift.auc": "A probe tells rows of {data} from rows of {other} with an AUC of {auc} (95% "
    "interval {low} to {high}, p = {p}); 0.5 is guessing.",
    "drift.clear": "The two differ by more than chance explains: results may depend on where data "
    "come from.",
    "drift.unclear": "No difference is found that chance could not explain.",
    "drift.caption": "The test examples that are least like the training examples",
    "drift.place": "row",
    "drift.text": "text",
    "drift.probability": "probability of the probe",
    # Settings
    "settings.name": "setting",
    "settings.value": "value",
    "settings.package": "package",
    "settings.version": "version",
    "settings.unknown": "The settings of the training are unknown; give `model=` or `settings=` to "
    "`save_html`.",
    "setting.checkpoint": "checkpoint",
    "setting.model_type": "model type",
    "setting.task": "task",
    "setting.pooling": "pooling",
    "setting.data": "training data",
    "setting.parameters": "parameters",
    "setting.train": "training data",
    "setting.validation": "validation data",
    "setting.test": "test data",
    "setting.policy": "what is trained",
    "setting.epochs": "epochs",
    "setting.batch_size": "batch size",
    "setting.learning_rate": "learning rate",
    "setting.optimizer": "optimizer",
    "setting.schedule": "schedule",
    "setting.warmup_ratio": "warm-up ratio",
    "setting.weight_decay": "weight decay",
    "setting.rates": "factors on the rate",
    "setting.label_smoothing": "label smoothing",
    "setting.keep": "weights kept",
    "setting.dropout": "dropout",
    "setting.max_length": "maximum length",
    "setting.store_features": "cached features",
    "setting.class_weight": "class weights",
    "setting.dtype": "precision",
    "setting.seed": "seed",
    "setting.interrupted": "interrupted",
    "fit.caption": "The fits of the model",
    "fit.trained": "trained",
    "fit.epochs": "epochs",
    "fit.steps": "steps an epoch",
    "fit.optimizer": "optimizer",
    "fit.learning_rate": "learning rate",
    "reproduce.command": "The command that was typed:",
    "reproduce.snippet": "Python code for the same result, once the data are read as they were:",
    "reproduce.read": "read the data",
    # Units
    "unit.texts": "texts",
    "unit.sentences": "sentences",
    "unit.examples": "examples",
    "unit.videos": "videos",
    "unit.images": "images",
    "unit.questions": "questions",
    "unit.pairs": "pairs",
    # Metrics
    "metric.accuracy": "accuracy",
    "metric.loss": "loss",
    "metric.macro_f1": "macro F1",
    "metric.micro_f1": "micro F1",
    "metric.subset_accuracy": "subset accuracy",
    "metric.f1": "F1",
    "metric.precision": "precision",
    "metric.recall": "recall",
    "metric.mcc": "Matthews correlation",
    "metric.pearson": "Pearson correlation",
    "metric.spearman": "Spearman correlation",
    "metric.mse": "mean squared error",
    "metric.mae": "mean absolute error",
    "metric.top5_accuracy": "top-5 accuracy",
    "metric.perplexity": "perplexity",
    "metric.bits_per_byte": "bits per byte",
    "metric.exact_match": "exact match",
    "metric.bleu": "BLEU",
    "metric.chrf": "chrF",
    "metric.rougeL": "ROUGE-L",
    "metric.rouge1": "ROUGE-1",
    "metric.rouge2": "ROUGE-2",
    "metric.image_to_text_recall@1": "recall@1, image to text",
    "metric.image_to_text_recall@5": "recall@5, image to text",
    "metric.text_to_image_recall@1": "recall@1, text to image",
    "metric.text_to_image_recall@5": "recall@5, text to image",
    # Notes of evaluators, by their sentences
    "note.rouge-score: F-measure, words of the letters a to z and digits, stemmed.": "rouge-score: "
    "F-measure, words of the letters a to z and digits, stemmed.",
    "note.rouge-score: F-measure, words in any script or, where no spaces separate them, "
    "characters; not stemmed.": "rouge-score: F-measure, words in any script or, where no spaces "
    "separate them, characters; not stemmed.",
}
