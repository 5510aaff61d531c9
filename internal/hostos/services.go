package hostos

import (
	"fmt"
	"strings"
)

// Services are named as systemctl(1) knows them; ".service" may be left out.

// EnableService makes a service start with the system. Repeating it changes nothing.
func EnableService(name string) []string { return []string{"systemctl", "enable", "--", name} }

// StartService starts a service that does not run.
func StartService(name string) []string { return []string{"systemctl", "start", "--", name} }

// RestartService stops a service and starts it, also when it does not run.
func RestartService(name string) []string { return []string{"systemctl", "restart", "--", name} }

// ReloadServices makes the service manager read changed units and drop-ins. The
// services run on as they are.
func ReloadServices() []string { return []string{"systemctl", "daemon-reload"} }

// ServiceState asks what the service manager thinks of a service. It answers also
// about services that are not there.
func ServiceState(name string) []string {
	return []string{"systemctl", "show", "--property=LoadState,ActiveState,SubState,UnitFileState", "--", unit(name)}
}

// ServiceLog prints the end of what a service said and was said of it, by journalctl(1).
func ServiceLog(name string) []string {
	return []string{"journalctl", "--no-pager", "--output=cat", "--lines=20", "--unit=" + unit(name)}
}

// ServiceSaid prints the end of what a service itself said, without the service manager's
// words (systemd.journal-fields(7)).
func ServiceSaid(name string) []string {
	return []string{"journalctl", "--no-pager", "--output=cat", "--lines=20", "_SYSTEMD_UNIT=" + unit(name)}
}

// unit gives a name its suffix, which show does not do in old versions.
func unit(name string) string {
	if strings.Contains(name, ".") {
		return name
	}
	return name + ".service"
}

// Service is what the service manager thinks of a service.
type Service struct {
	Exists  bool   // its unit is there and can be read
	Active  bool   // it runs, or ran once and stays done
	Failed  bool   // it ended badly, or could not start
	Enabled bool   // enabling it would change nothing
	State   string // for people, such as "active (running)"
}

// ParseServiceState reads the answer to ServiceState, by systemd.unit(5) and
// systemctl(1).
func ParseServiceState(exit int, stdout string) (Service, error) {
	is := map[string]string{}
	for line := range strings.Lines(stdout) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if value != "" && !validToken(value) {
			return Service{}, fmt.Errorf("the host answers with an unreadable state of a service")
		}
		is[key] = value
	}
	load, active := is["LoadState"], is["ActiveState"]
	if exit != 0 || load == "" || active == "" {
		return Service{}, fmt.Errorf("the host does not say how a service is (exit code %d)", exit)
	}
	s := Service{
		Exists: load == "loaded",
		Active: active == "active" || active == "reloading" || active == "refreshing",
		Failed: active == "failed",
		State:  active,
	}
	switch is["UnitFileState"] {
	case "enabled", "static", "alias", "indirect", "generated":
		s.Enabled = true
	}
	if sub := is["SubState"]; sub != "" {
		s.State += " (" + sub + ")"
	}
	if !s.Exists {
		s.State = load // not-found, masked, bad-setting, error
	}
	return s, nil
}
