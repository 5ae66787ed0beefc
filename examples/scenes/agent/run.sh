#!/bin/bash
# The play of this scene; see ../README.md. Started as root by `inwarden demo`.
set -u
scene_dir=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
scene_scripts=(service.sh work.sh upgrade.sh report.sh refresh.sh notes.sh)
scene_service=(bash service.sh)
scene_credentials=.aws/credentials
# shellcheck source=../lib.sh
. "$scene_dir/../lib.sh"

scene_prepare
scene_ready
scene_work
scene_wait 2
scene_step a upgrade.sh
scene_wait 1
scene_step b report.sh
scene_wait 1
scene_step c refresh.sh
scene_wait 1
scene_source d notes.sh
scene_wait $((scene_pace + 4))
scene_finish 30
