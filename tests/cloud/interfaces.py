"""What EC2 does with network interfaces: one function for each action, which takes out the parameters that it knows."""

from __future__ import annotations

from typing import Any

from tests.cloud.assigning import assign, take_wanted
from tests.cloud.refusals import Refusal, no_attachment, no_nic
from tests.cloud.shown import rendered
from tests.cloud.world import Instance, Nic, World

Parameters = dict[str, Any]
Answer = dict[str, Any]


def create(world: World, p: Parameters) -> Answer:
    """Idempotent by its token; the answer says "pending", as the API reference's example does."""
    token, print_ = p.pop("ClientToken", ""), repr(sorted(p.items()))
    name, groups, description = p.pop("SubnetId"), p.pop("Groups", []), p.pop("Description", "")
    tags = {tag["Key"]: tag["Value"] for one in p.pop("TagSpecifications", []) for tag in one["Tags"]}
    wanted = take_wanted(p)
    if token in world.by_token:
        known, known_print = world.by_token[token]
        if known_print != print_:
            raise Refusal("IdempotentParameterMismatch", "The token was used with other parameters")
        if known not in world.nics:
            raise no_nic(known)
        return {"NetworkInterface": _pending(world, world.nics[known])}
    if name not in world.subnets:
        raise Refusal("InvalidSubnetID.NotFound", f"The subnet ID '{name}' does not exist")
    nic = world.make(world.subnets[name], groups, description, tags)
    nic.seen_at = world.clock() + world.drawn(world.unkind.unseen)
    try:
        assign(world, nic, wanted, limit=50)
    except Refusal:
        world.remove(nic)
        raise
    if token:
        world.by_token[token] = nic.id, print_
    world.on_change(nic, None)
    return {"NetworkInterface": _pending(world, nic)}


def _pending(world: World, nic: Nic) -> dict[str, Any]:
    shown = rendered(world, nic)
    return shown if nic.attachment is not None else {**shown, "Status": "pending"}


def attach(world: World, p: Parameters) -> Answer:
    """To a free index of a network card."""
    nic, index = world.nic(p.pop("NetworkInterfaceId")), p.pop("DeviceIndex")
    instance, card = _running(world, p.pop("InstanceId")), p.pop("NetworkCardIndex", None)
    if nic.attachment is not None:
        raise Refusal("InvalidNetworkInterface.InUse", f"Interface: [{nic.id}] in use.")
    shape = instance.shape
    held = [one.attachment for one in world.held(instance.id) if one.attachment is not None]
    if (card or 0) >= len(shape.cards):
        raise Refusal("InvalidParameterValue", f"The network card index {card} is not valid for {instance.type}")
    most = shape.cards[card or 0]
    if sum(one.card == (card or 0) for one in held) >= most:
        raise Refusal("AttachmentLimitExceeded", f"Interface count {most + 1} exceeds the limit for {instance.type}")
    is_any = card is None and world.unkind.index_of_any_card
    if any(one.index == index and (is_any or one.card == (card or 0)) for one in held):
        raise Refusal(
            "InvalidParameterValue",
            f"Instance '{instance.id}' already has an interface attached at device index '{index}'.",
        )
    if nic.subnet.zone != instance.subnet.zone:
        raise Refusal("InvalidParameterCombination", "The interface and the instance are in different zones")
    if len([one for one in nic.blocks if one.version == 4]) >= shape.addresses:
        raise Refusal("PrivateIpAddressLimitExceeded", "The instance's type does not support that many addresses")
    made = world.attach(nic, instance, (card or 0, index))
    world.on_change(nic, None)
    return {"AttachmentId": made.id, "NetworkCardIndex": made.card}


def detach(world: World, p: Parameters) -> Answer:
    """Never the primary one."""
    name = p.pop("AttachmentId")
    nic = next((one for one in world.all_attached() if one.attachment and one.attachment.id == name), None)
    if nic is None or nic.attachment is None:
        raise no_attachment(name)
    if (nic.attachment.card, nic.attachment.index) == (0, 0):
        raise Refusal(
            "OperationNotPermitted",
            "The network interface at device index 0 and networkCard index 0 cannot be detached.",
        )
    world.detach(nic)
    world.on_change(nic, None)
    return {}


def delete(world: World, p: Parameters) -> Answer:
    """What is attached nowhere."""
    nic = world.nic(p.pop("NetworkInterfaceId"))
    if nic.attachment is not None:
        code = "InvalidParameterValue" if world.unkind.attached_words else "InvalidNetworkInterface.InUse"
        raise Refusal(code, f"Network interface '{nic.id}' is currently in use.")
    world.remove(nic)
    return {}


def modify(world: World, p: Parameters) -> Answer:
    """Whether it goes with its instance, or its security groups: one attribute for each call (API Reference,
    ModifyNetworkInterfaceAttribute: "You can specify only one attribute at a time")."""
    nic = world.nic(p.pop("NetworkInterfaceId"))
    if len(p) != 1:
        raise Refusal("InvalidParameterCombination", "Exactly one attribute can be modified")
    if "Groups" in p:
        nic.groups = p.pop("Groups")
    else:
        change = p.pop("Attachment")
        if nic.attachment is None or nic.attachment.id != change["AttachmentId"]:
            raise no_attachment(change["AttachmentId"])
        nic.attachment.goes = change["DeleteOnTermination"]
    world.on_change(nic, None)
    return {}


def create_tags(world: World, p: Parameters) -> Answer:
    """On interfaces; those that are there with another value are overwritten."""
    nics = [world.nic(name) for name in p.pop("Resources")]
    tags = {one["Key"]: one["Value"] for one in p.pop("Tags")}
    for nic in nics:
        world.retag(nic, {**nic.tags, **tags})
        world.on_change(nic, None)
    return {}


def _running(world: World, name: str) -> Instance:
    if name not in world.instances or world.instances[name].state != "running":
        raise Refusal("InvalidInstanceID.NotFound", f"The instance ID '{name}' does not exist")
    return world.instances[name]


ACTIONS = {
    "CreateNetworkInterface": create,
    "AttachNetworkInterface": attach,
    "DetachNetworkInterface": detach,
    "DeleteNetworkInterface": delete,
    "ModifyNetworkInterfaceAttribute": modify,
    "CreateTags": create_tags,
}
