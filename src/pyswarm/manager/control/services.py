"""Services: create, get, list, update, roll back, remove, count (spec/control-api, section 6)."""

from __future__ import annotations

from pyswarm.api import tasks as task_facts
from pyswarm.api import v1 as api
from pyswarm.api.jobs import is_current, is_job
from pyswarm.errors import AlreadyExists, FailedPrecondition, NotFound, Unimplemented
from pyswarm.manager.control import filters, references, validate_service
from pyswarm.manager.control.environment import Part, require
from pyswarm.manager.control.service_defaults import insert_defaults
from pyswarm.manager.store import NameConflict, Tx, View, by, copy_of
from pyswarm.rpc.caller import Caller

S = api.TaskState


class Services(Part):
    """The RPCs about services."""

    async def CreateService(self, request: api.CreateServiceRequest, _caller: Caller) -> api.CreateServiceResponse:  # noqa: N802
        """Store a new service as it was sent. Raises AlreadyExists for a taken name, and what the checks raise."""
        require(request.HasField("spec"))
        spec = request.spec
        validate_service.check_service(spec)
        service = api.Service(id=self._env.new_id(), spec=spec, spec_version=api.Version())

        def create(tx: Tx) -> api.Service:
            references.check_networks(tx, spec)
            references.check_ports(tx, spec.endpoint)
            references.check_ingress(tx, spec)
            references.check_payloads(tx, spec)
            self._check_room(tx, service)
            if is_job(spec):
                service.job_status.job_iteration.SetInParent()
                service.job_status.last_execution.CopyFrom(tx.now)
            return tx.services.create(service)

        try:
            stored = await self._env.store.update(create)
        except NameConflict as conflict:
            raise AlreadyExists(f"{conflict.message}: service {spec.annotations.name} already exists") from None
        return api.CreateServiceResponse(service=stored)

    async def GetService(self, request: api.GetServiceRequest, _caller: Caller) -> api.GetServiceResponse:  # noqa: N802
        """One service, on request with its spec completed. Raises NotFound."""
        require(request.service_id)
        response = api.GetServiceResponse(service=_existing(await self._reading(), request.service_id))
        if request.insert_defaults:
            insert_defaults(response.service.spec)
        return response

    async def ListServices(self, request: api.ListServicesRequest, _caller: Caller) -> api.ListServicesResponse:  # noqa: N802
        """The services that every given filter field matches."""
        store, wanted = await self._reading(), request.filters
        found = filters.all_of(
            store.services,
            narrow=(
                (wanted.names, by.name),
                (wanted.name_prefixes, by.name_prefix),
                (wanted.id_prefixes, by.id_prefix),
                (wanted.runtimes, by.runtime),
            ),
            tests=(
                filters.among(wanted.names, filters.spec_name),
                filters.prefixed(wanted.name_prefixes, filters.spec_name),
                filters.prefixed(wanted.id_prefixes, filters.id_of),
                filters.labelled(wanted.labels, filters.spec_labels),
                filters.among(wanted.runtimes, lambda service: task_facts.runtime_name(service.spec.task) or None),
            ),
        )
        return api.ListServicesResponse(services=found)

    async def UpdateService(self, request: api.UpdateServiceRequest, _caller: Caller) -> api.UpdateServiceResponse:  # noqa: N802
        """Replace the spec, or go back to the previous one. Raises NotFound, SequenceConflict, and what the checks raise."""
        require(request.service_id and request.HasField("service_version"))
        require(request.HasField("spec"))
        validate_service.check_service(request.spec)

        def update(tx: Tx) -> api.Service:
            references.check_networks(tx, request.spec)
            old = _existing(tx, request.service_id)
            _check_change(tx, old, request)
            service = copy_of(old)
            service.meta.version.index = request.service_version.index
            if service.HasField("job_status"):
                service.job_status.job_iteration.index += 1
                service.job_status.last_execution.CopyFrom(tx.now)
            if request.rollback == api.UpdateServiceRequest.PREVIOUS:
                _roll_back(tx, service, old)
            else:
                _replace_spec(service, old, request)
            references.check_ingress(tx, service.spec)
            if service.spec.endpoint != old.spec.endpoint or service.spec.task.networks != old.spec.task.networks:
                self._check_room(tx, service)
            return tx.services.update(service)

        return api.UpdateServiceResponse(service=await self._env.store.update(update))

    async def RemoveService(self, request: api.RemoveServiceRequest, _caller: Caller) -> api.RemoveServiceResponse:  # noqa: N802
        """Delete at once; the control loops stop its tasks. Raises NotFound."""
        require(request.service_id)

        def remove(tx: Tx) -> None:
            _existing(tx, request.service_id)
            tx.services.delete(request.service_id)

        await self._env.store.update(remove)
        return api.RemoveServiceResponse()

    async def ListServiceStatuses(  # noqa: N802
        self, request: api.ListServiceStatusesRequest, _caller: Caller
    ) -> api.ListServiceStatusesResponse:
        """How many tasks each service should have, runs and has completed. Unknown services count zero."""
        store = await self._reading()
        counted = {service_id: status_of(store, service_id) for service_id in dict.fromkeys(request.services)}
        return api.ListServiceStatusesResponse(statuses=[counted[service_id] for service_id in request.services])


def _existing(view: View, service_id: str) -> api.Service:
    service = view.services.get(service_id)
    if service is None:
        raise NotFound(f"service {service_id} not found")
    return service


def _check_change(view: View, old: api.Service, request: api.UpdateServiceRequest) -> None:
    """Whether the requested spec may take the place of the old one. Raises InvalidArgument, Unimplemented."""
    new = request.spec
    if new.HasField("endpoint") and new.endpoint != old.spec.endpoint:
        references.check_ports(view, new.endpoint, old.id)
    moved = list(new.networks) != list(old.spec.networks)
    if moved and list(new.task.networks) == list(old.spec.task.networks):
        raise Unimplemented("networks must be migrated to TaskSpec before being changed")
    references.check_payloads(view, new)
    if new.WhichOneof("mode") != old.spec.WhichOneof("mode"):
        raise Unimplemented("service mode change is not allowed")
    if new.annotations.name != old.spec.annotations.name:
        raise Unimplemented("renaming services is not supported")


def _replace_spec(service: api.Service, old: api.Service, request: api.UpdateServiceRequest) -> None:
    service.previous_spec.CopyFrom(old.spec)
    service.previous_spec_version.CopyFrom(old.spec_version)
    service.spec.CopyFrom(request.spec)
    service.spec_version.CopyFrom(request.service_version)
    service.ClearField("update_status")


def _roll_back(tx: Tx, service: api.Service, old: api.Service) -> None:
    """Swap the specs. Unlike the reference the spec that comes back is checked against what it needs (section 22, 10).

    A job gets no update status: it is not rolled back task by task, so nobody would ever call it completed.
    Raises FailedPrecondition without a previous spec, InvalidArgument when it cannot come back.
    """
    if not old.HasField("previous_spec"):
        raise FailedPrecondition(f"service {old.id} does not have a previous spec")
    references.check_payloads(tx, old.previous_spec)
    if old.previous_spec.endpoint != old.spec.endpoint:
        references.check_ports(tx, old.previous_spec.endpoint, old.id)
    service.spec.CopyFrom(old.previous_spec)
    service.previous_spec.CopyFrom(old.spec)
    service.spec_version.CopyFrom(old.previous_spec_version)
    service.previous_spec_version.CopyFrom(old.spec_version)
    if is_job(service.spec):
        return
    service.update_status.CopyFrom(
        api.UpdateStatus(state=api.UpdateStatus.ROLLBACK_STARTED, message="manually requested rollback", started_at=tx.now)
    )


def status_of(view: View, service_id: str) -> api.ListServiceStatusesResponse.ServiceStatus:
    """The counts of one service (spec section 6.15). Tasks that outlive their service still count as running."""
    status = api.ListServiceStatusesResponse.ServiceStatus(service_id=service_id)
    service = view.services.get(service_id)
    mode = service.spec.WhichOneof("mode") if service is not None else ""
    per_node = service is not None and mode not in {"replicated", "replicated_job"}
    job = service if service is not None and service.HasField("job_status") else None
    desired = running = completed = 0
    if service is not None and not per_node:
        desired = service.spec.replicated.replicas if mode == "replicated" else service.spec.replicated_job.max_concurrent
    for task in view.tasks.find(by.service(service_id)):
        if job is not None and not is_current(job, task):
            continue
        state = task.status.state
        completed += job is not None and state == S.COMPLETE
        running += state == S.RUNNING
        if per_node:
            desired += task.desired_state == S.RUNNING or (task.desired_state == S.COMPLETE and state != S.COMPLETE)
    status.desired_tasks, status.running_tasks, status.completed_tasks = desired, running, completed
    return status
