// Package hostos knows operating systems: what to ask a host about itself and
// which command each act is there. It does no I/O.
package hostos

import (
	_ "embed"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"commissaire/internal/fleet"
)

// FactsScript is a POSIX sh script that prints what ParseFacts reads. It only
// reads. On the host it honours COMMISSAIRE_OS_ROOT (prefix of os-release and
// ostree-booted) and COMMISSAIRE_BOOT_ID_FILE, for hosts without their own /proc.
//
//go:embed facts.sh
var FactsScript string

// ParseFacts reads what FactsScript printed. Sources: os-release(5) for the
// system, libostree's /run/ostree-booted, bootc(8), proc_meminfo(5), df(1), and
// /proc/sys/kernel/random/boot_id (random(4)). A host without a usable boot id
// or operating system name is an error, since no reboot could be proven on it
// and no command chosen; so is a number that no machine has.
func ParseFacts(out string) (fleet.Facts, error) {
	var f fleet.Facts
	for line := range strings.Lines(out) {
		key, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), "=")
		if !ok {
			continue
		}
		value = strings.TrimSpace(value)
		var err error
		switch key {
		case "os":
			f.OS = strings.ToLower(unquote(value))
		case "os_version":
			f.OSVersion = unquote(value)
		case "ostree":
			f.OSTree = value == "true"
		case "bootc":
			f.Bootc = value == "true"
		case "package_manager":
			f.PackageManager = value
		case "cpus":
			var n uint64
			n, err = strconv.ParseUint(value, 10, 31)
			f.CPUs = int(n)
		case "memory_kib":
			var kib uint64
			kib, err = strconv.ParseUint(value, 10, 41) // in MiB it fits 31 bits
			f.Memory = int(kib / 1024)
		case "space_kib":
			var kib uint64
			kib, err = strconv.ParseUint(value, 10, 53) // in bytes it still fits 63 bits
			f.Space = int64(kib) * 1024
		case "boot_id":
			f.BootID = value
		}
		if err != nil {
			return fleet.Facts{}, fmt.Errorf("the host answered %s with something that is no number, or an impossible one", key)
		}
	}
	if !validToken(f.OS) {
		return fleet.Facts{}, fmt.Errorf("the host names no operating system: /etc/os-release is missing or has no usable ID")
	}
	if !validToken(f.BootID) {
		return fleet.Facts{}, fmt.Errorf("the host has no readable boot id (/proc/sys/kernel/random/boot_id), so no reboot could be proven")
	}
	if f.OSVersion != "" && !validToken(f.OSVersion) {
		f.OSVersion = ""
	}
	if !slices.ContainsFunc(families, func(known Family) bool { return known.manager() == f.PackageManager }) {
		f.PackageManager = ""
	}
	return f, nil
}

// unquote takes the shell quotes of os-release(5) off a value.
func unquote(s string) string {
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1]
	}
	return s
}

// validToken refuses what a hostile host could answer to break a terminal, a
// log or a column.
func validToken(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-+~", r) {
			return false
		}
	}
	return true
}
