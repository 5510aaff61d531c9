// Package acceptance lets the product work on whole machines and says what came of
// it there. The machines are real: systemd is process 1, sshd lets the product in, a
// reboot gives a new boot id, and packages come from repositories that are made for
// the run. They are of these sorts, a cluster of each, and all sorts go on at once:
//
//   - apt: Debian
//   - dnf: Debian's tree with rpm and dnf, which calls itself Fedora
//   - rpm-ostree: Debian's tree as OSTree deployments, which the machine boots; the
//     command rpm-ostree is a stand-in over libostree
//
// All of them are bootstrapped twice, of which the second must change nothing, and
// restarted. Packages are upgraded twice, and in the second upgrade the worker is
// killed while a package's script runs: the package manager must go on, another
// worker must wait for it, and it must have begun once. Images are upgraded, deployed
// and, as an order for the version before, rolled back.
//
// What is printed and counted is what the machines themselves say, asked past SSH
// and past the product. The product only says how an operation ended.
package acceptance
