"""The messages of the Kubernetes Container Runtime Interface that the tests need, made when this is imported.

Names and numbers are those of k8s.io/cri-api, pkg/apis/runtime/v1/api.proto: a runtime skips the fields it is not sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE: Final = "runtime.v1"
_FIELD: Final = descriptor_pb2.FieldDescriptorProto
# An enumeration is the same on the wire as a number.
_SCALARS: Final = {
    "string": _FIELD.TYPE_STRING,
    "bytes": _FIELD.TYPE_BYTES,
    "number": _FIELD.TYPE_INT64,
    "bool": _FIELD.TYPE_BOOL,
}
# By message, its fields as NAME:NUMBER:TYPE; a repeated one with a star.
_MESSAGES: Final[Mapping[str, str]] = {
    "Nothing": "",
    "VersionRequest": "version:1:string",
    "VersionResponse": "version:1:string runtime_name:2:string runtime_version:3:string",
    "StatusRequest": "verbose:1:bool",
    "StatusResponse": "status:1:RuntimeStatus",
    "RuntimeStatus": "conditions:1:*RuntimeCondition",
    "RuntimeCondition": "type:1:string status:2:bool reason:3:string message:4:string",
    "PodSandboxMetadata": "name:1:string uid:2:string namespace:3:string attempt:4:number",
    "PortMapping": "protocol:1:number container_port:2:number host_port:3:number",
    "NamespaceOption": "network:1:number pid:2:number ipc:3:number",
    "LinuxSandboxSecurityContext": "namespace_options:1:NamespaceOption",
    "LinuxPodSandboxConfig": "security_context:2:LinuxSandboxSecurityContext",
    "PodSandboxConfig": "metadata:1:PodSandboxMetadata hostname:2:string log_directory:3:string"
    " port_mappings:5:*PortMapping linux:8:LinuxPodSandboxConfig",
    "RunPodSandboxRequest": "config:1:PodSandboxConfig",
    "RunPodSandboxResponse": "pod_sandbox_id:1:string",
    "PodSandboxRequest": "pod_sandbox_id:1:string",
    "PodSandboxStatusResponse": "status:1:PodSandboxStatus",
    "PodSandboxStatus": "id:1:string metadata:2:PodSandboxMetadata state:3:number network:5:PodSandboxNetworkStatus",
    "PodSandboxNetworkStatus": "ip:1:string additional_ips:2:*PodIP",
    "PodIP": "ip:1:string",
    "ListPodSandboxResponse": "items:1:*PodSandbox",
    "PodSandbox": "id:1:string metadata:2:PodSandboxMetadata state:3:number",
    "ImageSpec": "image:1:string",
    "ContainerMetadata": "name:1:string attempt:2:number",
    "KeyValue": "key:1:string value:2:string",
    "Mount": "container_path:1:string host_path:2:string readonly:3:bool propagation:5:number",
    "Capability": "add_capabilities:1:*string drop_capabilities:2:*string",
    "SecurityProfile": "profile_type:1:number",
    "SELinuxOption": "type:3:string level:4:string",
    "LinuxContainerSecurityContext": "capabilities:1:Capability privileged:2:bool namespace_options:3:NamespaceOption"
    " selinux_options:4:SELinuxOption run_as_user:5:Int64Value"
    " readonly_rootfs:7:bool masked_paths:13:*string readonly_paths:14:*string"
    " seccomp:15:SecurityProfile",
    "Int64Value": "value:1:number",
    "LinuxContainerConfig": "security_context:2:LinuxContainerSecurityContext",
    "ContainerConfig": "metadata:1:ContainerMetadata image:2:ImageSpec command:3:*string args:4:*string"
    " envs:6:*KeyValue mounts:7:*Mount log_path:11:string linux:15:LinuxContainerConfig",
    "CreateContainerRequest": "pod_sandbox_id:1:string config:2:ContainerConfig sandbox_config:3:PodSandboxConfig",
    "ContainerResponse": "container_id:1:string",
    "ContainerRequest": "container_id:1:string",
    "StopContainerRequest": "container_id:1:string timeout:2:number",
    "ExecSyncRequest": "container_id:1:string cmd:2:*string timeout:3:number",
    "ExecSyncResponse": "stdout:1:bytes stderr:2:bytes exit_code:3:number",
}


def _described() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="cri.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, told in (one.split(":") for one in fields.split()):
            kind = told.removeprefix("*")
            label = _FIELD.LABEL_OPTIONAL if kind == told else _FIELD.LABEL_REPEATED
            made = message.field.add(name=field, number=int(number), label=label)
            made.type = _SCALARS.get(kind, _FIELD.TYPE_MESSAGE)
            if kind not in _SCALARS:
                made.type_name = f".{_PACKAGE}.{kind}"
    return file


def _classes() -> Mapping[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(_described().SerializeToString())
    found = (pool.FindMessageTypeByName(f"{_PACKAGE}.{name}") for name in _MESSAGES)
    return dict(zip(_MESSAGES, map(message_factory.GetMessageClass, found), strict=True))


CLASSES: Final = _classes()
"""A class for every message, by its name."""
