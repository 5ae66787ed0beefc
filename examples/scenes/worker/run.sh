#!/bin/bash
# The play of this scene; see ../README.md. Started as root by `inwarden demo`.
set -u
scene_dir=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
scene_scripts=(service.py jobs.py session.sh sync.sh tick.sh audit.sh)
scene_service=(python3 service.py)
scene_credentials=.config/runner/token
# shellcheck source=../lib.sh
. "$scene_dir/../lib.sh"

scene_prepare
scene_ready
scene_work
scene_wait 2
scene_step c tick.sh
scene_wait 1
scene_step b sync.sh
scene_wait 1
scene_step a session.sh
scene_wait 1
scene_source d audit.sh
scene_wait $((scene_pace + 4))
scene_finish 30
