"""One readable run a file; `joyvl_train.cli` calls `main(config, run)` of the one that is named."""
