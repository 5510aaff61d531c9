package hostos

var _ = register(yum{dnf{packages{"yum"}}})

// yum is dnf's predecessor, by yum(8) of version 3. It answers as dnf does.
type yum struct{ dnf }

func (yum) systems() []string { return []string{"centos", "rhel", "redhat"} }
