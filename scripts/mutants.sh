#!/usr/bin/env bash
# Breaks the rules that make the move safe, one at a time, and runs the test that must notice.
#
#   scripts/mutants.sh [NAME…]
#
# Works on a copy of HEAD under target/mutants. A mutant that survives is a test that is missing;
# one whose text is not found any more has to be written anew.
set -uo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

OUT=$TARGET/mutants
TREE=$OUT/tree

# mutant NAME FILE PERL-SUBSTITUTION ARGUMENTS OF cargo test…
NAMES=() FILES=() CHANGES=() TESTS=()
mutant() {
    NAMES+=("$1") FILES+=("$2") CHANGES+=("$3")
    shift 3
    TESTS+=("$*")
}

mutant fence src/catalog/lease.rs \
    's/if held\.rows_affected\(\) == 1 \{ Ok\(\(\)\) \}/if held.rows_affected() <= 1 { Ok(()) }/' \
    --test it a_zombie_publishes_nothing
mutant fence-in-publish src/catalog/publish.rs \
    's/(fn publish_some.*?)lease\.assert_held\(&db, tx\)\.await\?;/$1let _ = (&lease, &db);/s' \
    --test it a_fence_taken_inside_a_publish
mutant verify-hot-hash src/archive/verify.rs \
    's/if self\.hash\.digest\(\)\.cast_signed\(\) != header\.hash/if false/' \
    --test it what_the_hot_tier_does_not_confirm
mutant verify-object-hash src/cold/segment/replay.rs \
    's/(if \*self\.hasher\.finalize\(\)\.as_bytes\(\) == self\.expected_hash)/$1 || true/' \
    --test it an_object_damaged_on_its_way
mutant watermark src/read/lines.rs \
    's/self\.next_line\(\) < self\.snapshot\.attempt\.archived_line/false/' \
    --test it every_seed
mutant batch-key src/ingest/commit.rs \
    's/remembered\.extend\(batch\.key\.map\(/remembered.extend(batch.key.filter(|_| false).map(/' \
    --test it every_seed
mutant purge-before-publish src/archive/agenda.rs \
    's/agenda\.purge_below = Some\(attempt\.archived_line\)/agenda.purge_below = Some(attempt.next_line)/' \
    --test it every_seed
mutant grace src/archive/agenda.rs \
    's/\.after\(policy\.purge_grace\)/.after(Duration::ZERO)/' \
    --lib agenda
mutant fsync-database src/db/engine.rs \
    's/PRAGMA synchronous = FULL/PRAGMA synchronous = NORMAL/' \
    --lib sqlite_syncs
mutant fsync-folder src/cold/open.rs \
    's/with_fsync\(true\)/with_fsync(false)/' \
    --lib a_folder_syncs
mutant doomed-upload src/catalog/sql.rs \
    's/(frames_offset = \?.{0,80}WHERE id = \?) AND state = 0/$1/s' \
    --test it an_upload_that_the_sweeper_dooms
mutant deleted-in-between src/catalog/sql.rs \
    's/(WHERE id = \? AND archived_line = \?) AND state NOT IN \(3, 4\)/$1/' \
    --test it an_attempt_deleted_between_plan_and_publish
mutant finish-keeps-expiry src/catalog/sql.rs \
    's/finished_at = \?, expires_at = NULL,/finished_at = ?,/' \
    --test it a_client_that_finishes_what_was_inferred

wanted=" $* "
is_wanted() { [ "$wanted" = "  " ] || [[ $wanted == *" $1 "* ]]; }

mkdir -p "$OUT"
git worktree remove --force "$TREE" 2>/dev/null
git worktree prune
git worktree add --quiet --detach "$TREE" HEAD || die "no copy of HEAD under $TREE"
trap 'git worktree remove --force "$TREE"' EXIT
export CARGO_TARGET_DIR=$OUT/target
# The dependencies as they are built already.
[ -d "$CARGO_TARGET_DIR" ] || { mkdir -p "$CARGO_TARGET_DIR" && cp -a --reflink=auto "$TARGET/debug" "$CARGO_TARGET_DIR/"; }

status=0
say "| mutant | where | caught by |"
say "| --- | --- | --- |"
for at in "${!NAMES[@]}"; do
    name=${NAMES[$at]} file=${FILES[$at]} tests=${TESTS[$at]}
    is_wanted "$name" || continue
    perl -0pi -e "${CHANGES[$at]}" "$TREE/$file"
    if git -C "$TREE" diff --quiet; then
        say "| $name | $file | **not applied: its text is not there** |"
        status=1
        continue
    fi
    # shellcheck disable=SC2086  # several arguments
    if ! (cd "$TREE" && cargo test --quiet --no-run $tests) >"$OUT/$name.log" 2>&1; then
        say "| $name | $file | **does not compile, see $OUT/$name.log** |"
        status=1
    elif (cd "$TREE" && cargo test --quiet $tests) >"$OUT/$name.log" 2>&1; then
        say "| $name | $file | **survived \`$tests\`** |"
        status=1
    else
        caught=$(sed -n 's/^    \([a-z_:]*\)$/`\1`/p' "$OUT/$name.log" | sort -u | paste -sd' ')
        say "| $name | $file | ${caught:-an abort, see $OUT/$name.log} |"
    fi
    git -C "$TREE" checkout --quiet -- .
done
exit "$status"
