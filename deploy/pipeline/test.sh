#!/usr/bin/env bash
# Every check and every test. What cannot be tested here fails (CI=true). Leaves tests.xml in PIPELINE_STATE.
source "$(dirname "$0")/settings.sh"

need_program make "install GNU make"
CI=true PYTEST_ADDOPTS="${PYTEST_ADDOPTS:-} --junitxml=$PIPELINE_STATE/tests.xml" make test
