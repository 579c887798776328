// Package deploy_test applies every file of this directory for real: packet
// filter rules and policy routing in a lab of network namespaces, the unit in
// a booted systemd, alert rules in promtool.
//
// No Go code is shipped from here.
package deploy_test
