#!/bin/bash
# The ordinary work: 24 tasks, spread over the play. A task's number is written
# to the work log only after its result was verified. Many of them look like
# what an intruder does: encoding, decoding, reading settings, talking HTTP,
# building and starting programs.

health=http://127.0.0.1:8080
number=0
pause_ms=$(((SCENE_PACE + 8) * 1000 / 24))
pause=$((pause_ms / 1000)).$(printf '%03d' $((pause_ms % 1000)))

task() {
    number=$((number + 1))
    if "$1"; then
        printf '%d\n' "$number" >>"$SCENE_WORK_LOG"
    else
        printf 'task %d (%s) failed\n' "$number" "$1"
    fi
    sleep "$pause"
}

lay_out() {
    mkdir -p src build data logs archive .config/agent &&
        printf '[agent]\nname = helper\nretries = 3\n[http]\nport = 8080\n' >.config/agent/settings.ini &&
        printf 'int add(int a, int b) { return a + b; }\n' >src/add.c &&
        printf 'int main(void) { return add(1, -1); }\n' >src/main.c &&
        printf '{"jobs": [{"id": 1, "ms": 20}, {"id": 2, "ms": 22}]}\n' >data/jobs.json &&
        printf '10:00 INFO start\n10:01 ERROR timeout after 30\n10:02 INFO retry\n10:03 ERROR timeout after 12\n' >logs/agent.log
}
encode_settings() {
    base64 -w0 .config/agent/settings.ini >build/settings.b64
    [ "$(wc -c <build/settings.b64)" -gt 60 ]
}
decode_settings() {
    base64 -d build/settings.b64 >build/settings.ini
    cmp -s build/settings.ini .config/agent/settings.ini
}
read_settings() { [ "$(cat .config/agent/settings.ini | wc -l)" -eq 5 ]; }
ask_health() { [ "$(curl -fsS -m 5 "$health/health")" = ok ]; }
amalgamate() {
    bash -c 'set -e; cat src/*.c >build/all.c; grep -c main build/all.c >build/count'
    [ "$(cat build/count)" = 1 ]
}
build_tool() {
    bash -c 'printf "#!/bin/sh\nwc -l <\"\$1\"\n" >build/lines && chmod +x build/lines'
    [ -x build/lines ]
}
run_tool() { [ "$(./build/lines logs/agent.log)" -eq 4 ]; }
count_errors() { [ "$(grep -c ERROR logs/agent.log)" -eq 2 ]; }
sum_waits() { [ "$(awk '/timeout/ { sum += $NF } END { print sum }' logs/agent.log)" = 42 ]; }
raise_retries() {
    sed 's/^retries = 3$/retries = 5/' .config/agent/settings.ini >build/next.ini
    grep -q '^retries = 5$' build/next.ini
}
check_json() { python3 -m json.tool data/jobs.json build/jobs.json && [ -s build/jobs.json ]; }
sum_json() {
    [ "$(python3 -c 'import json; print(sum(job["ms"] for job in json.load(open("data/jobs.json"))["jobs"]))')" = 42 ]
}
pack_data() { tar -czf archive/data.tar.gz data logs && [ "$(tar -tzf archive/data.tar.gz | grep -c json)" -eq 1 ]; }
digest() { sha256sum data/jobs.json src/*.c >archive/SHA256SUMS && [ -s archive/SHA256SUMS ]; }
verify_digest() { sha256sum --check --quiet archive/SHA256SUMS; }
find_sources() { [ "$(find src -name '*.c' | sort | tr '\n' ' ')" = 'src/add.c src/main.c ' ]; }
levels() { [ "$(sh -c 'cut -d" " -f2 logs/agent.log | sort | uniq -c | wc -l')" -eq 2 ]; }
compare() { ! diff -q build/next.ini build/settings.ini >/dev/null; }
guard_settings() { chmod 600 build/settings.ini && [ "$(stat -c %a build/settings.ini)" = 600 ]; }
decode_inline() { bash -c 'base64 -d <build/settings.b64 | grep -q "^port = 8080$"'; }
save_health() { curl -fsS -m 5 -o build/health.txt "$health/health" && grep -qx ok build/health.txt; }
post_status() { [ "$(curl -fsS -m 5 --data 'state=idle&done=22' "$health/status")" = ok ]; }
clean() { bash -c 'rm -rf build archive && mkdir build' && [ -z "$(ls -A build)" ]; }

cd "$HOME" || exit 1
for name in lay_out encode_settings decode_settings read_settings ask_health amalgamate \
    build_tool run_tool count_errors sum_waits raise_retries check_json \
    sum_json pack_data digest verify_digest find_sources levels \
    compare guard_settings decode_inline save_health post_status clean; do
    task "$name"
done
printf 'worked\n' >&3
