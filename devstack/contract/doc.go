// Package contract replays docs/contract.md against running installations: the
// real binary as processes of its own, a real Postgres, a real Temporal, hosts
// with a real sshd, and the real commctl. Its tests speak as clients of 2017 do,
// without a content type for example.
//
// Each fact of that document has a test here and each test a fact. One that
// runs without -run compares the two, and the last line of the program says
// how many facts there are, have a test that ran, and failed:
//
//	contract: facts=N covered=N failed=0
//
// With -update it writes the names of the tests into the document.
package contract
