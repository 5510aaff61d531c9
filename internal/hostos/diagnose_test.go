package hostos_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/hostos"
)

func TestDiagnose(t *testing.T) {
	t.Parallel()
	const lock, full, key, net = "holds the package manager's lock", "is full", "signature", "could not be reached"
	for _, c := range []struct{ output, want, process string }{
		// apt 2.6, dpkg 1.21
		{"E: Could not get lock /var/lib/apt/lists/lock. It is held by process 46 (python3)\nE: Unable to lock directory /var/lib/apt/lists/\n", lock, "46"},
		{"Waiting for cache lock: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 365 (python3)...\nE: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?\n", lock, "365"},
		{"dpkg: error: dpkg frontend lock was locked by another process with pid 365\nNote: removing the lock file is always wrong, can damage the locked area\n", lock, "365"},
		{"E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem. \n", "dpkg --configure -a", ""},
		{"dpkg: error processing package bad (--configure):\n installed bad package post-installation script subprocess returned error exit status 1\nErrors were encountered while processing:\n bad\nE: Sub-process /usr/bin/dpkg returned an error code (1)\n", "script of a package failed", ""},
		{"E: Failed to fetch http://127.0.0.1:9/./InRelease  Could not connect to 127.0.0.1:9 (127.0.0.1). - connect (111: Connection refused)\nE: Some index files failed to download. They have been ignored, or old ones used instead.\n", net, ""},
		{"Err:1 http://deb.example.org/debian bookworm InRelease\n  Temporary failure resolving 'deb.example.org'\n", net, ""},
		{"W: GPG error: http://x ./ InRelease: The following signatures couldn't be verified because the public key is not available: NO_PUBKEY 6ED0E7B82643E131\nE: The repository 'http://x ./ InRelease' is not signed.\nE: Failed to fetch http://x\n", key, ""},
		{"E: You don't have enough free space in /var/cache/apt/archives/.\n", full, ""},
		{"dpkg: error processing archive x.deb (--unpack):\n cannot copy extracted data for './usr/x' to '/usr/x.dpkg-new': failed to write (No space left on device)\nE: Sub-process /usr/bin/dpkg returned an error code (1)\n", full, ""},
		{"The following packages will be REMOVED:\n  containerd.io docker-ce\nE: Packages need to be removed but remove is disabled.\n", "beside others of the host", ""},
		// dnf 4.14 and 5.4
		{"RPMDB already locked by 48\n  The application with PID 48 is: dnf\n    Memory :  59 M RSS (116 MB VSZ)\n", lock, "48"},
		{"Waiting for process with pid 48 to finish.\n", lock, "48"},
		{"Waiting for a lock on the system repository. The following processes are currently accessing it:\n10\tdnf5 -y install slow \nUse the \"--skip-file-locks\" option to bypass the lock.\n", lock, "10"},
		{"another process has held the lock of dnf5 for 300 seconds\n", lock, ""},
		{"Errors during downloading metadata for repository 'r':\n  - Curl error (37): Couldn't read a file:// file\nError: Failed to download metadata for repo 'r': Cannot download repomd.xml: Cannot download repodata/repomd.xml: All mirrors were tried\n", net, ""},
		{">>> Curl error (37): Could not read a file:// file\n>>> Usable URL not found\n", net, ""},
		{"Error: Transaction test error:\n  installing package x needs 20MB more space on the / filesystem\n", full, ""},
		{"Public key for x.rpm is not installed\nError: GPG check FAILED\n", key, ""},
		// yum 3
		{"Existing lock /var/run/yum.pid: another copy is running as pid 812.\nAnother app is currently holding the yum lock; waiting for it to exit...\n", lock, "812"},
		{"Cannot find a valid baseurl for repo: base/7/x86_64\n", net, ""},
		// zypper 1.14
		{"System management is locked by the application with pid 29 (zypper).\nClose this application before trying again.\n", lock, "29"},
		{"Problem retrieving files from 'r'.\nSpecified path '/srv/repo' is not a directory: file:/srv/repo\nWarning: Skipping repository 'r' because of the above error.\n", net, ""},
		{"zypper left out a repository that it could not refresh\n", net, ""},
		// rpm-ostree, bootc
		{"error: Transaction in progress: upgrade\n You can cancel the current transaction with `rpm-ostree cancel`\n", lock, ""},
		{"error: Updates and deployments are driven by Zincati\n", "another agent", ""},
		{"error: While pulling fedora/x86_64: While fetching https://x: [6] Couldn't resolve host name\n", net, ""},
		{"error: Commit 1: GPG signatures found, but none are in trusted keyring\n", key, ""},
		{"error: Pulling: pinging container registry quay.io: Get \"https://quay.io/v2/\": dial tcp: lookup quay.io: no such host\n", net, ""},
		{"error: Pulling: Source image rejected: A signature was required, but no signature exists\n", key, ""},
		// sudo
		{"sudo: a password is required\n", "sudo asks for a password", ""},

		{"", "", ""},
		{"Reading package lists...\nE: Unable to locate package nosuch\n", "", ""},
		{"No space left on device\n" + strings.Repeat("all is well\n", 100), "", ""},
	} {
		got := hostos.Diagnose([]byte(c.output))
		if c.want == "" {
			require.Empty(t, got, c.output)
			continue
		}
		require.Contains(t, got, c.want, c.output)
		require.NotContains(t, got, "%", c.output)
		require.NotContains(t, got, "\n", c.output)
		if c.process != "" {
			require.Contains(t, got, "(process "+c.process+")", c.output)
		} else {
			require.NotContains(t, got, "(process", c.output)
		}
	}
}

func FuzzDiagnose(f *testing.F) {
	f.Add([]byte("E: Could not get lock x. It is held by process 46 (apt)"))
	f.Fuzz(func(t *testing.T, output []byte) {
		for _, r := range hostos.Diagnose(output) {
			if r < ' ' || r > '~' {
				t.Fatalf("%q", hostos.Diagnose(output))
			}
		}
	})
}
