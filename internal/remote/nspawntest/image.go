package nspawntest

// ImagePackages are what machines need beyond their base to boot OSTree deployments.
// See [Options].
var ImagePackages = []string{"ostree", "python3-gi", "gir1.2-ostree-1.0"}
