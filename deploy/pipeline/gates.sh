#!/usr/bin/env bash
# What must hold before anything else is worth its time: recorded orders replay with this code, and the API breaks no caller
# of the last release. Part of `make test`, too; run first, it says so within a minute.
source "$(dirname "$0")/settings.sh"

need_program make "install GNU make"
make gates
