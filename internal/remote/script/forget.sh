# The result is stored elsewhere: drops it, but keeps claim and exit code, so that
# nobody can start the run again.

c_forget() {
  c_claimed || return 0
  if [ ! -e "$c_dir/rc" ] && c_alive && [ ! -e "$c_dir/rc" ]; then c_die unusable "$c_dir still runs, its result cannot be dropped"; fi
  rm -f "$c_dir/out" "$c_dir"/job.* "$c_dir"/claim.* || c_die unusable "drop the output in $c_dir"
}
