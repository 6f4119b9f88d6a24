#!/usr/bin/env bash
# Breaks the rules that make the move safe, one at a time, and runs the test that must notice.
#
#   scripts/mutants.sh [NAME…]
#
# Works on a copy of HEAD under target/mutants: every mutant is put in at once, each asleep until the
# variable MUTANT names it, so that one build serves them all. The tests must pass while all are
# asleep, and the one that is named must fail. A mutant that survives is a test that is missing; one
# whose text is not found any more has to be written anew.
set -uo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

OUT=$TARGET/mutants
TREE=$OUT/tree

# mutant NAME FILE PERL-SUBSTITUTION ARGUMENTS OF cargo test…
# In the substitution, IS_ON is true where the mutant is awake.
NAMES=() FILES=() CHANGES=() TESTS=()
mutant() {
    NAMES+=("$1") FILES+=("$2") CHANGES+=("$3")
    shift 3
    TESTS+=("$*")
}

mutant fence src/catalog/lease.rs \
    's/if held\.rows_affected\(\) == 1 \{/if held.rows_affected() == 1 || IS_ON {/' \
    --test it a_zombie_publishes_nothing
mutant fence-in-publish src/catalog/publish.rs \
    's/(fn publish_some.*?)(lease\.assert_held\(&db, tx\)\.await\?;)/$1if !IS_ON { $2 }/s' \
    --test it a_fence_taken_inside_a_publish_stops_it
mutant verify-hot-hash src/archive/verify.rs \
    's/if (self\.hash\.digest\(\)\.cast_signed\(\) != header\.hash)/if !IS_ON && $1/' \
    --test it what_the_hot_tier_does_not_confirm
mutant verify-object-hash src/cold/segment/replay.rs \
    's/if (self\.expected_hash\.is_none_or\()/if IS_ON || $1/' \
    --lib an_object_of_the_same_length
mutant watermark src/read/lines.rs \
    's/self\.next_line\(\) < (self\.snapshot\.attempt\.archived_line)/(!IS_ON && self.next_line() < $1)/' \
    --test it every_seed
mutant batch-key src/ingest/commit.rs \
    's/remembered\.extend\(batch\.key\.map\(/remembered.extend(batch.key.filter(|_| !IS_ON).map(/' \
    --test it every_seed
mutant told-of-gone src/catalog/sql.rs \
    's/let \(id, told\) = \(new\("id"\), /let (id, told) = (if IS_ON { format!("{} OR id = id", new("id")) } else { new("id") }, /' \
    --test it what_a_writer_remembers
mutant purge-before-publish src/archive/agenda.rs \
    's/purge_below = Some\(attempt\.archived_line\)/purge_below = Some(if IS_ON { attempt.next_line } else { attempt.archived_line })/' \
    --test it every_seed
mutant grace src/archive/agenda.rs \
    's/\.after\(policy\.purge_grace\)/.after(if IS_ON { Duration::ZERO } else { policy.purge_grace })/' \
    --lib chunks_go_only_after_the_grace
mutant fsync-database src/db/engine.rs \
    's/sqlx::query\(\*statement\)/sqlx::query(if IS_ON \&\& statement.contains("synchronous") { "PRAGMA synchronous = NORMAL" } else { *statement })/' \
    --lib sqlite_syncs_every_commit
mutant fsync-folder src/cold/open.rs \
    's/with_fsync\(true\)/with_fsync(!IS_ON)/' \
    --lib a_folder_syncs_what_it_writes
mutant doomed-upload src/catalog/publish.rs \
    's/sqlx::query\(sql_publish::make_live\(\)\)/sqlx::query(sqlx::AssertSqlSafe(sql_publish::make_live().replace(" AND state = 0", if IS_ON { "" } else { " AND state = 0" })))/' \
    --test it an_upload_that_the_sweeper_dooms
mutant deleted-in-between src/catalog/publish.rs \
    's/(sql_publish::lock_watermarks\(entries\[0\]\.shard, entries\.len\(\), db\.engine\(\)\))/$1.replace(" AND state NOT IN (3, 4)", if IS_ON { "" } else { " AND state NOT IN (3, 4)" })/' \
    --test it an_attempt_deleted_between_plan_and_publish
mutant finish-keeps-expiry src/catalog/declare.rs \
    's/(sql::finish_attempt\(home\.shard\))/$1.replace("expires_at = NULL, ", if IS_ON { "" } else { "expires_at = NULL, " })/' \
    --test it a_client_that_finishes_what_was_inferred
mutant purge-above src/hot/rows.rs \
    's/(query\.bind\(id\.get\(\)\)\.bind\()(i64::try_from\(\*line\)\.unwrap_or\(i64::MAX\))\)/$1if IS_ON { i64::MAX } else { $2 })/' \
    --test it every_seed
mutant stored-head src/cold/segment/reader.rs \
    's/if (!line\.strip_prefix\(head\)\.is_some_and\(\|tail\| tail\.starts_with\(b"\\"ts\\":"\)\)) \{\n            return Ok\(None\)/if !IS_ON && $1 {\n            return Ok(None)/' \
    --lib ndjson_lines_come
mutant clock src/archive/run.rs \
    's/(check_clock\(shared, db\)\.await\?;)/if !IS_ON { $1 }/' \
    --test it a_daemon_whose_clock_is_days_ahead

wanted=" $* "
is_wanted() { [ "$wanted" = "  " ] || [[ $wanted == *" $1 "* ]]; }
# shellcheck disable=SC2086  # several arguments
passes() { (cd "$TREE" && cargo test --quiet $1) >"$OUT/$2.log" 2>&1; }

mkdir -p "$OUT"
git worktree remove --force "$TREE" 2>/dev/null
git worktree prune
git worktree add --quiet --detach "$TREE" HEAD || die "no copy of HEAD under $TREE"
trap 'git worktree remove --force "$TREE"' EXIT

status=0
for at in "${!NAMES[@]}"; do
    file=$TREE/${FILES[$at]} before=$(cksum <"$TREE/${FILES[$at]}")
    awake="std::env::var_os(\"MUTANT\").is_some_and(|name| name == \"${NAMES[$at]}\")"
    AWAKE=$awake perl -0pi -e "${CHANGES[$at]} && s/\bIS_ON\b/\$ENV{AWAKE}/g" "$file"
    if [ "$before" = "$(cksum <"$file")" ]; then
        note "${NAMES[$at]}: its text is not in ${FILES[$at]}"
        status=1
    fi
done

# The dependencies as they are built already.
export CARGO_TARGET_DIR=$OUT/target
if [ ! -d "$CARGO_TARGET_DIR" ]; then
    mkdir -p "$CARGO_TARGET_DIR/debug"
    cp -a --reflink=auto "$TARGET"/debug/{.fingerprint,build,deps} "$CARGO_TARGET_DIR/debug/"
fi
(cd "$TREE" && cargo test --quiet --no-run --lib --test it) >"$OUT/build.log" 2>&1 ||
    die "the mutants do not compile: see $OUT/build.log"

# Some rules hold on one engine only.
export LOGTIER_TOOLS=$TOOLS LOGTIER_TEST_MARIADB_DIR=$OUT/mariadb
LOGTIER_TEST_MYSQL_URL=$(scripts/mariadb.sh start) || die "no MariaDB"
export LOGTIER_TEST_MYSQL_URL
trap 'git worktree remove --force "$TREE"; scripts/mariadb.sh stop' EXIT

say "| mutant | where | caught by |"
say "| --- | --- | --- |"
for at in "${!NAMES[@]}"; do
    name=${NAMES[$at]} tests=${TESTS[$at]}
    is_wanted "$name" || continue
    unset MUTANT
    if ! passes "$tests" "$name"; then
        caught="**\`$tests\` fails without it**"
        status=1
    elif export MUTANT=$name && passes "$tests" "$name"; then
        caught="**survived \`$tests\`**"
        status=1
    else
        caught=$(sed -n 's/^    \([a-z_:]*\)$/`\1`/p' "$OUT/$name.log" | sort -u | paste -sd' ')
    fi
    say "| $name | ${FILES[$at]} | ${caught:-an abort, see $OUT/$name.log} |"
done
exit "$status"
